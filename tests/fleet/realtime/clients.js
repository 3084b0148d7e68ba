// Clients of refapp's messages, with the socket.io-client that browsers use. Each says something
// now and then, hears everything, comes back whenever it is disconnected, and takes no double out.
//   node clients.js '{"url", "token", "clients", "every_ms"}'     stops at the end of its input
// It answers with one line of JSON: what was said, and what of it came wrong.
import { randomUUID } from "node:crypto";
import { io } from "socket.io-client";

const { url, token, clients, every_ms } = JSON.parse(process.argv[2]);
const run = randomUUID().slice(0, 8);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Client {
  constructor(number) {
    this.name = `${run}-${number}`;
    this.said = 0;
    this.unsent = new Map(); // client_id → text, in order; a key leaves when it is acknowledged
    this.acknowledged = new Set();
    this.heard = []; // client_ids as they came
    this.joins = 0;
    this.gaps = 0;
    this.farewells = 0;
    this.last = null;
    this.ready = false; // joined, and all that was unsent is sent again: before that, nothing new
    this.socket = io(url, {
      transports: ["websocket"],
      auth: { token },
      forceNew: true,
      reconnectionDelay: 200,
      reconnectionDelayMax: 2000,
    });
    this.socket.on("connect", () => this.join());
    this.socket.on("disconnect", () => (this.ready = false));
    // Refused, for want of Redis, say: the library comes back by itself only from a lost connection.
    this.socket.on("connect_error", () => {
      if (!this.socket.active) setTimeout(() => this.socket.connect(), 1000);
    });
    this.socket.on("leave", () => (this.farewells += 1));
    this.socket.on("message", (message) => {
      this.last = message.id;
      if (message.client_id.startsWith(run)) this.heard.push(message.client_id);
    });
  }

  join() {
    this.socket.emit("join", { last: this.last }, (answer) => {
      this.joins += 1;
      this.last = answer.position;
      if (!answer.complete) this.gaps += 1;
      for (const [client_id, text] of this.unsent) this.send(client_id, text);
      this.ready = true;
    });
  }

  say() {
    const client_id = `${this.name}:${this.said}`;
    this.said += 1;
    this.unsent.set(client_id, `message ${client_id}`);
    if (this.ready) this.send(client_id, this.unsent.get(client_id));
  }

  send(client_id, text) {
    this.socket.emit("send", { client_id, text }, (answer) => {
      if (answer?.id === undefined) throw new Error(`refused: ${JSON.stringify(answer)}`);
      this.unsent.delete(client_id);
      this.acknowledged.add(client_id);
    });
  }
}

function report(all) {
  const said = new Set(all.flatMap((client) => [...client.acknowledged]));
  const wrong = { lost: 0, doubled: 0, disordered: 0 };
  for (const client of all) {
    const once = new Set(client.heard);
    wrong.doubled += client.heard.length - once.size;
    for (const client_id of said) if (!once.has(client_id)) wrong.lost += 1;
    const newest = new Map();
    for (const client_id of client.heard) {
      const [name, number] = client_id.split(":");
      if (Number(number) <= (newest.get(name) ?? -1)) wrong.disordered += 1;
      newest.set(name, Number(number));
    }
  }
  const sum = (value) => all.reduce((total, client) => total + value(client), 0);
  return {
    ...wrong,
    clients: all.length,
    said: sum((client) => client.said),
    acknowledged: said.size,
    heard: sum((client) => client.heard.length),
    joins: sum((client) => client.joins),
    gaps: sum((client) => client.gaps),
    farewells: sum((client) => client.farewells),
    moved: all.filter((client) => client.joins > 1).length,
  };
}

async function until(check, seconds) {
  for (const end = Date.now() + seconds * 1000; !check() && Date.now() < end; ) await sleep(100);
}

const all = Array.from({ length: clients }, (_, number) => new Client(number));
await until(() => all.every((client) => client.joins), 60);
console.log(JSON.stringify({ joined: all.filter((client) => client.joins).length }));

let talking = true;
process.stdin.resume().on("end", () => (talking = false));
while (talking) {
  // A tenth of them at a time, so that each speaks once in ten rounds.
  const round = Math.floor(Math.random() * 10);
  for (const client of all) if (Number(client.name.split("-")[1]) % 10 === round) client.say();
  await sleep(every_ms);
}
const total = all.reduce((sum, client) => sum + client.said, 0);
await until(() => all.every((client) => client.unsent.size === 0), 60);
await until(() => all.every((client) => client.heard.length >= total), 60);
await sleep(2000); // for what would come twice
console.log(JSON.stringify(report(all)));
process.exit(0);
