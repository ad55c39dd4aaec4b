// Numbers of the confusion become buttons that filter the gallery. Without script the page shows everything.
const items = [...document.querySelectorAll("#gallery li")];
const status = document.getElementById("shown");
let pressed = null;

function show(cell) {
  if (pressed) pressed.setAttribute("aria-pressed", "false");
  pressed = pressed === cell ? null : cell;
  if (pressed) pressed.setAttribute("aria-pressed", "true");
  const { true: t, predicted: p } = pressed ? pressed.dataset : {};
  let n = 0;
  for (const item of items) {
    item.hidden = pressed !== null && (item.dataset.true !== t || item.dataset.predicted !== p);
    n += !item.hidden;
  }
  status.textContent = pressed ? `${n} shown: ${pressed.getAttribute("aria-label")}. Press the number again for all.` : "";
  if (pressed) document.getElementById("images").scrollIntoView({ block: "start" });
}

for (const cell of document.querySelectorAll("#confusion td[data-true]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = cell.textContent;
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", cell.title);
  Object.assign(button.dataset, { true: cell.dataset.true, predicted: cell.dataset.predicted });
  button.addEventListener("click", () => show(button));
  cell.replaceChildren(button);
}
