from eagle.console import text_table


def test_text_table__numbers_line_up_at_the_right():
    lines = text_table(["class", "IoU"], [["sky", "7.00"], ["building", "12.50"]]).splitlines()
    assert lines == ["class       IoU", "--------  -----", "sky        7.00", "building  12.50"]


def test_text_table__words_line_up_at_the_left():
    assert text_table(["a", "b"], [["x", "longer"]], numbers=False).splitlines()[2] == "x  longer"
