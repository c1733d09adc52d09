// Fan-out with Node's net: what a publisher says goes to every client that said "subscribe".
const net = require("net");
const subscribers = new Set();

net
  .createServer({ noDelay: true }, (socket) => {
    let rest = "";
    socket.setEncoding("latin1");
    socket.on("error", () => {});
    socket.on("close", () => subscribers.delete(socket));
    socket.on("data", (bytes) => {
      const lines = (rest + bytes).split("\n");
      rest = lines.pop();
      const messages = lines.filter((line) => line !== "subscribe");
      if (messages.length < lines.length) subscribers.add(socket);
      if (messages.length === 0) return;
      const batch = Buffer.from(messages.join("\n") + "\n", "latin1");
      for (const subscriber of subscribers) subscriber.write(batch);
    });
  })
  .listen({ port: Number(process.env.BENCH_PORT), host: "127.0.0.1", backlog: 4096 });
