// Calls a Trimtab server with the .proto files alone, and prints the replies as one JSON object.
// usage: node recommend.mjs HOST:PORT USER PROTO_DIR COMMON_PROTO_DIR
// COMMON_PROTO_DIR has google/rpc/*.proto, which define the details of a status.
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const [target, userId, protoDir, commonProtoDir] = process.argv.slice(2);

const definition = protoLoader.loadSync("trimtab/v1/recommendation.proto", {
  includeDirs: [protoDir],
  keepCase: true,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { RecommendationService } = grpc.loadPackageDefinition(definition).trimtab.v1;
const client = new RecommendationService(target, grpc.credentials.createInsecure());

const details = new protobuf.Root();
details.resolvePath = (_origin, name) => path.join(commonProtoDir, name);
details.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"]);
const Status = details.lookupType("google.rpc.Status");
const BadRequest = details.lookupType("google.rpc.BadRequest");

function call(method, request, { timeoutMs = 10_000 } = {}) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + timeoutMs;
    client[method](request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

async function failure(method, request, options) {
  try {
    await call(method, request, options);
  } catch (error) {
    return error;
  }
  throw new Error(`${method} was expected to fail`);
}

function fieldViolations(error) {
  const [encoded] = error.metadata.get("grpc-status-details-bin");
  return Status.decode(encoded)
    .details.filter((detail) => detail.type_url.endsWith("/google.rpc.BadRequest"))
    .flatMap((detail) => BadRequest.decode(detail.value).fieldViolations)
    .map(({ field, description }) => ({ field, description }));
}

const steering = { edits: [{ concept: "Documentary", operation: "OPERATION_ADD", strength: 2.0 }] };
const history = { events: [{ item_id: "item-3" }, { item_id: "item-17" }] };
const time = { seconds: 1_700_000_000, nanos: 0 };
const interactions = [{ user_id: userId, event: { item_id: "item-3", kind: "EVENT_KIND_LIKE", time } }];

const steered = await call("Recommend", {
  history,
  n: 10,
  steering,
  explain: true,
  include_unsteered: true,
  include_report: true,
});
const invalid = await failure("Recommend", {
  history,
  n: 10,
  steering: { edits: [{ concept: "Documentary", strength: Number.NaN }] },
});
const late = await failure("Recommend", { history, n: 10 }, { timeoutMs: -1 });
const unknown = await call("Recommend", { user_id: userId, n: 5 });
const recorded = [
  await call("RecordInteractions", { interactions }),
  await call("RecordInteractions", { interactions }),
];
const known = await call("Recommend", { user_id: userId, n: 5 });
const forgotten = await call("ForgetUser", { user_id: userId });
client.close();

console.log(
  JSON.stringify({
    steered,
    invalid: { code: invalid.code, message: invalid.details, violations: fieldViolations(invalid) },
    late: { code: late.code },
    unknown,
    recorded,
    known,
    forgotten,
  }),
);
