// rhea: one receiver with a dynamic source, one sender; prints what it was answered as JSON.
const rhea = require("rhea");
const [port, requests] = [Number(process.argv[2]), JSON.parse(process.argv[3])];
const answers = [];
let sender, receiver;

function next() {
  if (answers.length === requests.length) {
    console.log(JSON.stringify(answers));
    return sender.connection.close();
  }
  const { properties, body } = requests[answers.length];
  sender.send({
    message_id: answers.length,
    reply_to: receiver.source.address,
    application_properties: properties,
    body,
  });
}

rhea.on("receiver_open", (context) => {
  if (context.receiver === receiver) {
    sender = context.connection.open_sender("$management");
  }
});
rhea.on("sender_open", next);
rhea.on("message", ({ message }) => {
  const { statusCode, statusDescription } = message.application_properties;
  answers.push({
    id: message.correlation_id,
    status: statusCode,
    description: statusDescription,
    body: message.body,
  });
  next();
});
const connection = rhea.connect({ host: "127.0.0.1", port, username: "anonymous", reconnect: false });
receiver = connection.open_receiver({ source: { dynamic: true } });
