"use strict";

// Sort a table by one column, numerically if all its values are numbers; rows without a value always come last.
function sortRows(table, column, direction) {
  const body = table.tBodies[0];
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = [...body.rows].map((row) => {
    const value = row.cells[column].dataset.value;
    return { row, value, number: Number(value) };
  });
  const numeric = keyed.every((item) => !Number.isNaN(item.number));
  keyed.sort((a, b) => {
    if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "");
    return sign * (numeric ? a.number - b.number : a.value.localeCompare(b.value));
  });
  body.append(...keyed.map((item) => item.row));
}

for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const first = button.dataset.first;
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = header.ariaSort === first ? other : first;
    for (const sibling of header.parentElement.querySelectorAll("[aria-sort]")) sibling.ariaSort = "none";
    header.ariaSort = direction;
    sortRows(header.closest("table"), header.cellIndex, direction);
  });
}

// Show only the alternative whose button is pressed.
for (const button of document.querySelectorAll(".choice button")) {
  button.addEventListener("click", () => {
    for (const other of button.parentElement.children) {
      const chosen = other === button;
      other.ariaPressed = String(chosen);
      document.getElementById(other.dataset.shows).hidden = !chosen;
    }
  });
}

// Give a confusion matrix's cell a tooltip in words.
for (const matrix of document.querySelectorAll("table.matrix")) {
  matrix.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("td[data-value]");
    if (!cell || cell.title) return;
    const predicted = matrix.tHead.rows[0].cells[cell.cellIndex].title;
    cell.title = `${cell.dataset.value} % of ${cell.parentElement.cells[0].title} predicted as ${predicted}`;
  });
}

// The viewer shows one enlarged image; arrow keys move to its neighbours.
const viewer = document.getElementById("viewer");
const images = [...document.querySelectorAll("button.image")];
let shown = 0;

function show(number) {
  shown = (number + images.length) % images.length;
  const image = images[shown];
  const score = image.querySelector(".accuracy").textContent;
  document.getElementById("viewer-name").textContent = image.querySelector(".name").textContent;
  document.getElementById("viewer-group").textContent = `${image.dataset.group} · ${score} accuracy`;
  document.getElementById("viewer-panels").replaceChildren(...image.querySelector(".panels").cloneNode(true).children);
  document.getElementById("viewer-legend").replaceChildren(...image.querySelector(".legend").cloneNode(true).children);
}

images.forEach((image, number) => {
  image.addEventListener("click", () => {
    show(number);
    viewer.showModal();
  });
});
for (const button of viewer.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => show(shown + Number(button.dataset.step)));
}
viewer.querySelector(".close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
});
viewer.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) show(shown + step);
});
