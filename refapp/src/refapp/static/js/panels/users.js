// How many users there are; one query in ten seconds for the whole fleet, whoever looks.
import { ask } from "../api.js";
import { number, poll } from "../tools.js";

export default () => ({
  registered: "–",
  online: "–",

  init() {
    poll(() => this.look(), 5000);
  },

  async look() {
    const count = await ask("/users/count").catch(() => null);
    if (!count) return;
    this.registered = number(count.registered);
    this.online = count.online === null ? "–" : number(count.online);
  },
});
