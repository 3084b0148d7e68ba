// Messages over Socket.IO: nothing is lost or doubled, whatever process it is connected to.
import { io } from "../../vendor/socket.io.js";
import { accessToken, api, forgetToken } from "../api.js";
import { attempt, time } from "../tools.js";

const SHOWN = 100;
const AGAIN = 2000; // ms after which it tries again where the library does not by itself
const REFUSED = {
  403: "Messages are closed for now.",
  429: "Too many messages. Please wait a minute.",
};

export default () => ({
  messages: [],
  unsent: [], // said, and not acknowledged yet; sent again in order after each join
  state: "",
  status: "Connecting",
  problem: "",

  async init() {
    this.last = null; // id of the last message seen: where to go on
    const answer = await attempt(this, () => api("GET", "/messages?limit=30"));
    for (const message of answer?.messages ?? []) this.hear(message);
    this.connect();
  },

  connect() {
    // Not a property that Alpine watches: it would wrap all that is in it.
    const socket = io({
      transports: ["websocket"],
      auth: (give) => accessToken().then((token) => give({ token }), () => give({})),
    });
    this.emit = (...words) => socket.emit(...words);
    const again = () => socket.active || setTimeout(() => socket.connect(), AGAIN);
    socket.on("connect", () => this.join());
    socket.on("message", (message) => this.hear(message));
    socket.on("expired", forgetToken);
    socket.on("disconnect", () => {
      this.away();
      again();
    });
    socket.on("connect_error", (error) => {
      if (error.data?.status === 401) forgetToken();
      this.away();
      again();
    });
  },

  away() {
    this.state = "away";
    this.status = "Away; coming back by itself";
  },

  join() {
    this.emit("join", { last: this.last }, ({ host, position, complete }) => {
      this.last = position;
      this.state = "here";
      this.status = `Connected to ${host}`;
      this.problem = complete ? "" : "Some messages came while you were away, and are gone.";
      for (const each of this.unsent) this.send(each);
    });
  },

  hear(message) {
    this.last = message.id;
    this.forget(message.client_id);
    this.messages.push({ ...message, key: message.id, time: time(message.sent_at), look: "" });
    if (this.messages.length > SHOWN) this.messages.shift();
    this.follow();
  },

  say() {
    const text = this.$refs.text.value.trim();
    if (!text) return;
    const message = { client_id: crypto.randomUUID(), text };
    this.unsent.push(message);
    const shown = { key: message.client_id, sender: "You", time: "sending", look: "sending" };
    this.messages.push({ ...message, ...shown });
    this.follow();
    this.$refs.text.value = "";
    if (this.state === "here") this.send(message);
  },

  send({ client_id, text }) {
    this.emit("send", { client_id, text }, (answer) => {
      if (!answer.status) return; // kept; it comes back as everybody gets it
      this.forget(client_id);
      this.problem = REFUSED[answer.status] ?? "The message was refused.";
    });
  },

  // Takes away what was shown before it was known to be kept, and nothing that was: everybody
  // sees a client_id, and may send another message under the same one.
  forget(client_id) {
    this.unsent = this.unsent.filter((each) => each.client_id !== client_id);
    this.messages = this.messages.filter((each) => each.id || each.client_id !== client_id);
  },

  // Keeps the newest in sight, unless somebody reads further up.
  follow() {
    const { log } = this.$refs;
    if (log.scrollHeight - log.scrollTop - log.clientHeight > 80) return;
    this.$nextTick(() => (log.scrollTop = log.scrollHeight));
  },
});
