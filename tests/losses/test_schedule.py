import pytest

from eagle.losses.schedule import lambda_at


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("released", 0, 0.0),
        ("released", 200, 0.0),
        ("released", 201, 0.9),
        ("paper", 0, 0.0),
        ("paper", 100, 0.45),
        ("paper", 200, 0.9),
        ("paper", 5000, 0.9),
    ],
)
def test_lambda_at__counts_steps(make_config, schedule, step, expected):
    cfg = make_config(lambda_schedule=schedule, step_schedulers=200, momentum_limit=0.9)
    assert lambda_at(cfg, step) == pytest.approx(expected)


def test_lambda_at__ramp_of_zero_length(make_config):
    assert lambda_at(make_config(lambda_schedule="paper", step_schedulers=0), 0) == pytest.approx(0.9)
