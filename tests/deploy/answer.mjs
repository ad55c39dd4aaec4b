// node answer.mjs JOB.json: run a model on pixels with one of ONNX Runtime's packages and print the results as JSON.
import fs from "node:fs";
import { createRequire } from "node:module";
import { classify, openModel, readMetadata } from "../../examples/browser/classify.mjs";

const job = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const ort = createRequire(`${job.modules}/`)(job.runtime);
const bytes = new Uint8Array(fs.readFileSync(job.model));
const answers = [];
if (job.canvas) { // planes that Python resized
  const session = await ort.InferenceSession.create(bytes);
  for (const { file, shape } of job.images) {
    const pixels = new ort.Tensor("uint8", new Uint8Array(fs.readFileSync(file)), shape);
    const { label, class_index: index, probabilities, outlier, answered, set } = await session.run({ pixels });
    const answer = { label: label.data[0], index: Number(index.data[0]), numbers: Array.from(probabilities.data) };
    if (outlier) { // a model with a guard; its booleans are 0 and 1
      answer.guard = { outlier: outlier.data[0], answered: answered.data[0], set: Array.from(set.data) };
    }
    answers.push(answer);
  }
} else { // a whole image, RGBA
  const model = await openModel(ort, bytes);
  for (const { file, shape } of job.images) {
    const [height, width] = shape;
    const { label, labels, numbers, heat } = await classify(ort, model, new Uint8Array(fs.readFileSync(file)), width, height);
    const found = Object.fromEntries(numbers.map((each) => [each.label, each.number]));
    const all = model.classes ? model.classes.map((name) => found[name]) : numbers.map(({ number }) => number);
    const names = numbers.map((each) => each.label);
    answers.push({ label, labels, names, index: model.classes?.indexOf(label), numbers: all, heat });
  }
}
console.log(JSON.stringify({ answers, classes: readMetadata(bytes)["featx.classes"], node: process.version }));
