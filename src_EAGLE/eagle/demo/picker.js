const input = element.querySelector("input[type=file]");
const drop = element.querySelector(".drop");
const problem = element.querySelector(".problem");

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

function mark(chosen) {
  for (const button of element.querySelectorAll(".bundled button"))
    button.setAttribute("aria-pressed", String(button === chosen));
}

async function send(file) {
  complain("");
  if (file.size > props.most_bytes) {
    const megabytes = Math.round(props.most_bytes / 2 ** 20);
    return complain(file.name + ": more than " + megabytes + " MB; save it smaller or as JPEG");
  }
  mark(null);
  drop.classList.add("busy");
  try {
    // A name that nobody can guess: others may send the same photograph.
    const random = [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("");
    const { path } = await upload(new File([file], random, { type: file.type }));
    trigger("upload", { path, name: file.name });
  } catch (error) {
    complain(file.name + ": the upload failed; is the server still running?");
  } finally {
    drop.classList.remove("busy");
    input.value = "";
  }
}

input.addEventListener("change", () => input.files[0] && send(input.files[0]));
for (const type of ["dragover", "dragleave", "drop"])
  window.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", type === "dragover");
    if (type === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
element.addEventListener("click", (event) => {
  const button = event.target.closest(".bundled button");
  if (!button) return;
  complain("");
  mark(button);
  trigger("select", { name: button.dataset.name });
});
