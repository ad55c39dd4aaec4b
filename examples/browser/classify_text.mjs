// Run a file of `featx export` of a text model with any of ONNX Runtime's packages for JavaScript, and with the
// Tokenizer of @huggingface/tokenizers. The model never sees a padded text: each text is run by itself.

import { readMetadata } from "./classify.mjs";

/** Open a model from its bytes (Uint8Array), read its metadata and make its tokenizer. */
export async function openTextModel(ort, Tokenizer, bytes) {
  const about = readMetadata(bytes);
  const rules = about["featx.preprocess"];
  if (rules?.kind !== "text")
    throw new Error(`the model takes ${about["featx.columns"] ? "several columns" : "images"}, expected one that takes texts`);
  const tokenizer = new Tokenizer(rules.tokenizer, {});
  return { session: await ort.InferenceSession.create(bytes), about, classes: about["featx.classes"], tokenizer };
}

/**
 * Return the tokens of a text as the model was fitted on them. A long text is cut, and its last special tokens stay; a
 * model that counts words reads the whole text.
 */
export function tokenize(model, text) {
  const { max_tokens: most, n_last: nLast } = model.about["featx.preprocess"];
  const { ids } = model.tokenizer.encode(text);
  if (ids.includes(undefined)) throw new Error("the tokenizer of this model is none that @huggingface/tokenizers knows");
  return most !== null && ids.length > most ? [...ids.slice(0, most - nLast), ...ids.slice(ids.length - nLast)] : ids;
}

/** Classify one text. Returns {label, numbers: [{label, number}], kind, outputs}, the largest number first. */
export async function classifyText(ort, model, text) {
  const ids = BigInt64Array.from(tokenize(model, text), BigInt);
  const outputs = await model.session.run({ input_ids: new ort.Tensor("int64", ids, [1, ids.length]) });
  const kind = ["probabilities", "scores", "value"].find((name) => name in outputs);
  const found = kind ? Array.from(outputs[kind].data) : [];
  if (kind === "value") return { kind, label: null, numbers: found.map((number) => ({ label: "value", number })), outputs };
  const names = found.length === 1 ? model.classes.slice(1) : model.classes;
  const numbers = found.map((number, i) => ({ label: String(names[i]), number }));
  return { kind, label: String(outputs.label.data[0]), numbers: numbers.sort((a, b) => b.number - a.number), outputs };
}
