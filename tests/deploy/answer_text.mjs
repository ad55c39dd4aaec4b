// Run an exported file on texts, with a tokenizer in JavaScript: node answer_text.mjs job.json
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { classifyText, openTextModel } from "../../examples/browser/classify_text.mjs";

const job = JSON.parse(await readFile(process.argv[2], "utf-8"));
const require = createRequire(path.join(job.modules, "any.js"));
const load = async (name) => {
  const found = await import(pathToFileURL(require.resolve(name)));
  return found.InferenceSession || found.Tokenizer ? found : found.default;
};
const ort = await load(job.runtime);
const { Tokenizer } = await load("@huggingface/tokenizers");
const model = await openTextModel(ort, Tokenizer, new Uint8Array(await readFile(job.model)));
const answers = [];
for (const text of job.texts) {
  const { label, numbers, outputs } = await classifyText(ort, model, text);
  const doubt = "outlier" in outputs ? outputs.outlier.data[0] : null;
  answers.push({ label, numbers: model.classes.map((name) => numbers.find((each) => each.label === String(name)).number), doubt });
}
console.log(JSON.stringify({ classes: model.classes, answers }));
