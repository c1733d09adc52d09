// Echoes lines with Node's net: cuts what a read brought and answers all its lines in one write.
const net = require("net");

function handle(line, replies) {
  replies.push(line, "\n");
}

net
  .createServer({ noDelay: true }, (socket) => {
    let rest = "";
    socket.setEncoding("latin1");
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      const data = rest + bytes;
      const replies = [];
      let from = 0;
      for (let stop; (stop = data.indexOf("\n", from)) >= 0; from = stop + 1) handle(data.slice(from, stop), replies);
      rest = data.slice(from);
      if (replies.length > 0) socket.write(replies.join(""), "latin1");
    });
  })
  .listen({ port: Number(process.env.BENCH_PORT), host: "127.0.0.1", backlog: 4096 });
