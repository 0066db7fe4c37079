() => {
  // Tell the cluster under the pointer: it is the one whose mask is opaque there.
  const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  document.addEventListener("pointermove", ({ target, clientX, clientY }) => {
    const box = target.closest("#stage .image-container"), rows = [...document.querySelectorAll("#stage .legend-item")];
    const { left, top, width, height } = (box || document.body).getBoundingClientRect();
    const under = [...(box ? box.querySelectorAll(".mask") : [])].findIndex((mask) => {
      pixel.clearRect(0, 0, 1, 1);
      const x = ((clientX - left) / width) * mask.naturalWidth, y = ((clientY - top) / height) * mask.naturalHeight;
      pixel.drawImage(mask, Math.floor(x), Math.floor(y), 1, 1, 0, 0, 1, 1);
      return pixel.getImageData(0, 0, 1, 1).data[3] > 0;
    });
    rows.forEach((row, i) => row.classList.toggle("under", i === under));
    if (box) box.title = under < 0 ? "" : rows[under].textContent.trim();
    const pointed = target.closest("#stage .legend-item");
    if (pointed) pointed.title = pointed.textContent.trim(); // a long name is cut off
  });
}
