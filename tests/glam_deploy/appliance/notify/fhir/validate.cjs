// Validates FHIR R4 resources, a JSON array on standard input; prints each one's errors, as a JSON array of arrays.
const { Fhir } = require("fhir");
const fhir = new Fhir();
const resources = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const errors = (resource) =>
  fhir
    .validate(resource, { errorOnUnexpected: true })
    .messages.filter((message) => ["error", "fatal"].includes(message.severity))
    .map((message) => `${message.location}: ${message.message}`);
console.log(JSON.stringify(resources.map(errors)));
