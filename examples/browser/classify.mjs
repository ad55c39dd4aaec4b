// Run a file of `featx export --resize in-graph` with any of ONNX Runtime's packages for JavaScript.

/** Open a model from its bytes (Uint8Array) and read its metadata. */
export async function openModel(ort, bytes) {
  const about = readMetadata(bytes);
  if (about["featx.resize"] !== "in-graph")
    throw new Error("the model does not resize images: export it with --resize in-graph");
  return { session: await ort.InferenceSession.create(bytes), about, classes: about["featx.classes"] };
}

/**
 * Classify one image from the RGBA pixels of a canvas, in full size.
 * Returns {label, numbers: [{label, number}], kind, heat}, the largest number first; a regression has the kind "value".
 * Of several labels per image, `labels` lists those that are set, and `label` joins them.
 * `heat` is null unless the model was exported with --heat-map. Otherwise it has the cells of the label, row by row
 * from -1 (against it) to 1 (for it), their rows and columns, and the box that they cover: {x, y, width, height}.
 */
export async function classify(ort, model, rgba, width, height) {
  const pixels = new ort.Tensor("uint8", dropAlpha(rgba), [1, height, width, 3]);
  const answers = await model.session.run({ pixels });
  const kind = ["probabilities", "scores", "value"].find((name) => name in answers);
  const found = kind ? Array.from(answers[kind].data) : [];
  const heat = (index) => ("heat_map" in answers ? readHeat(model, answers.heat_map, index, width, height) : null);
  if (kind === "value")
    return {
      kind,
      label: null,
      numbers: found.map((number, i) => ({ label: model.about["featx.targets"]?.[i] ?? "value", number })),
      heat: heat(0),
    };
  if ("labels" in answers) {
    const numbers = found.map((number, i) => ({ label: String(model.classes[i]), number }));
    const labels = model.classes.filter((_, i) => Number(answers.labels.data[i]));
    const likeliest = found.indexOf(Math.max(...found));
    numbers.sort((a, b) => b.number - a.number);
    return { kind, label: labels.join(", ") || "(none)", labels, numbers, heat: heat(likeliest) };
  }
  const label = String(answers.label.data[0]); // integers are BigInt
  // the decision between two classes is one number, that of the second class
  const names = found.length === 1 ? model.classes.slice(1) : model.classes;
  const numbers = found.map((number, i) => ({ label: String(names[i]), number }));
  return { kind, label, numbers: numbers.sort((a, b) => b.number - a.number), heat: heat(Number(answers.class_index.data[0])) };
}

/** Take the cells of one class, on the scale of all classes. */
function readHeat(model, { data, dims }, index, width, height) {
  const [, , rows, columns] = dims;
  const largest = data.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
  const cells = Array.from(data.slice(index * rows * columns, (index + 1) * rows * columns), (value) => value / largest);
  return { cells, rows, columns, box: findBox(model.about, width, height) };
}

/** Return the part of an image that the network sees, in pixels; with the crop "pad" it is larger than the image. */
export function findBox(about, width, height) {
  const { crop } = about["featx.features"];
  const { width: canvasWidth, height: canvasHeight, resize } = about["featx.preprocess"];
  if (crop === "whole") return { x: 0, y: 0, width, height };
  const short = Math.min(width, height);
  const scale = Math.min(canvasWidth / width, canvasHeight / height);
  const [fullWidth, fullHeight] = [width, height].map((side) =>
    crop === "pad" ? Math.max(1, Math.round(side * scale)) : Math.floor((resize.size * side) / short));
  const [across, down] = [width / fullWidth, height / fullHeight];
  const halve = crop === "pad" ? (gap) => -Math.floor(-gap / 2) : (gap) => roundHalfEven(gap / 2);
  const x = halve(fullWidth - canvasWidth) * across;
  const y = halve(fullHeight - canvasHeight) * down;
  return { x, y, width: canvasWidth * across, height: canvasHeight * down };
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2 ? 1 : 0) : Math.round(value);
}

function dropAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

/** Read the metadata of an ONNX file, which ONNX Runtime for JavaScript does not return; every value is JSON. */
export function readMetadata(bytes) {
  const about = {};
  for (const [field, value] of fields(bytes))
    if (field === 14) { // metadata_props
      const [key, text] = [...fields(value)].map(([, part]) => new TextDecoder().decode(part));
      if (key.startsWith("featx.")) about[key] = JSON.parse(text);
    }
  return about;
}

/** Iterate over the fields of a protobuf message that have a length; weights are skipped, not read. */
function* fields(bytes) {
  let at = 0;
  const number = () => {
    for (let value = 0, scale = 1; at < bytes.length; scale *= 128) {
      value += (bytes[at] & 127) * scale;
      if (bytes[at++] < 128) return value;
    }
    throw new Error("the model is cut short or no ONNX file");
  };
  while (at < bytes.length) {
    const tag = number();
    if (tag % 8 === 0) number();
    else if (tag % 8 === 2) {
      const end = number() + at;
      if (end > bytes.length) throw new Error("the model is cut short or no ONNX file");
      yield [Math.floor(tag / 8), bytes.subarray(at, end)];
      at = end;
    } else throw new Error("the model is no ONNX file");
  }
}
