// Who leads, and how long until each schedule's next tick.
import { api } from "../api.js";
import { attempt, poll, span } from "../tools.js";

export default () => ({
  leader: "–",
  since: "–",
  epoch: "–",
  last: {},
  next: {},
  problem: "",

  init() {
    this.schedules = [];
    poll(() => this.look(), 3000);
    poll(() => this.count(), 1000);
  },

  async look() {
    const found = await attempt(this, () => api("GET", "/cron"));
    if (!found) return;
    this.leader = found.leader?.host ?? "nobody now";
    this.since = found.leader ? span(Date.now() - new Date(found.leader.since)) : "–";
    this.epoch = found.epoch;
    this.schedules = found.schedules;
    this.count();
  },

  count() {
    const now = Date.now();
    for (const { name, last_tick, next_tick } of this.schedules) {
      this.last[name] = last_tick ? `${span(now - new Date(last_tick))} ago` : "–";
      this.next[name] = `in ${span(new Date(next_tick) - now)}`;
    }
  },
});
