// Parts that the pages share: the model's file, the line of status and the answer.

const MAX_CLASSES = 10; // shown

export const $ = (id) => document.getElementById(id);

export function say(text, failed = false) {
  $("status").textContent = text;
  $("status").className = failed ? "error" : "";
}

/** Fetch the model, open it from its bytes, and say what it is. Returns nothing, and says why, if it cannot be used. */
export async function loadModel(open) {
  try {
    const answer = await fetch("./model.onnx");
    if (!answer.ok) throw new Error(`model.onnx: ${answer.status} ${answer.statusText}`);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const model = await open(bytes);
    const name = model.about["featx.backbone"]?.name; // of several columns, each has its own, if any
    const what = model.classes ? `${model.classes.length} classes` : "a regression";
    say(`${name ? `${name}, ` : ""}${what}, ${(bytes.length / 1e6).toFixed(1)} MB`);
    return model;
  } catch (error) {
    say(`The model cannot be used: ${error.message}`, true);
  }
}

/** Show the label and the largest numbers of an answer, or the values of a regression. */
export function showAnswer({ label, numbers, kind }) {
  $("answer").textContent = label ?? numbers.map(({ number }) => number.toPrecision(4)).join(", ");
  $("numbers").replaceChildren(...(label === null ? [] : numbers.slice(0, MAX_CLASSES).map((each) => row(each, kind))));
}

export function clearAnswer() {
  $("answer").textContent = "";
  $("numbers").replaceChildren();
}

function row({ label, number }, kind) {
  const item = document.createElement("li");
  const [name, bar, text] = ["span", "meter", "output"].map((tag) => document.createElement(tag));
  name.textContent = name.title = label;
  bar.value = kind === "probabilities" ? number : 0;
  bar.hidden = kind !== "probabilities";
  text.textContent = kind === "probabilities" ? `${(100 * number).toFixed(1)} %` : number.toPrecision(3);
  item.append(name, bar, text);
  item.dataset.number = number;
  return item;
}
