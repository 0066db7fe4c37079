function show() {
  const pictures = (props.value || []).map(({ title, picture }) => {
    const figure = document.createElement("figure"), image = new Image(), caption = document.createElement("figcaption");
    image.src = picture;
    image.alt = caption.textContent = title;
    figure.append(image, caption);
    return figure;
  });
  element.querySelector(".pictures").replaceChildren(...pictures);
  element.querySelector(".empty").hidden = pictures.length > 0;
}
watch("value", show);
show();
