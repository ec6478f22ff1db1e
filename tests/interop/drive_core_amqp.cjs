// @azure/core-amqp: its RequestResponseLink, over the connection that rhea-promise makes for it.
const { RequestResponseLink } = require("@azure/core-amqp");
const { Connection } = require("rhea-promise");
const [port, requests] = [Number(process.argv[2]), JSON.parse(process.argv[3])];

async function main() {
  const connection = new Connection({ host: "127.0.0.1", port, username: "anonymous", reconnect: false });
  await connection.open();
  const link = await RequestResponseLink.create(
    connection,
    { target: { address: "$management" } },
    { source: { address: "$management" }, target: { address: "replies" } },
  );
  const answers = [];
  for (const [number, { properties, body }] of requests.entries()) {
    const request = {
      message_id: `request-${number}`,
      reply_to: "replies",
      application_properties: properties,
      body,
    };
    try {
      const answer = await link.sendRequest(request, { timeoutInMs: 10000 });
      answers.push({
        id: answer.correlation_id,
        status: answer.application_properties.statusCode,
        description: answer.application_properties.statusDescription,
        body: answer.body,
      });
    } catch (error) {
      // it raises for what was refused, with the description as its words
      answers.push({ id: `request-${number}`, status: error.code ?? error.name, description: error.message });
    }
  }
  console.log(JSON.stringify(answers));
  await connection.close();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
