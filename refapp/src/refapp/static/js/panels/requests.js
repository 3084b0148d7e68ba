// Asks who answers, twice a second, and counts.
import { ask } from "../api.js";
import { number, poll } from "../tools.js";

const SHOWN = 120; // of the last answers
const COLOURS = 6;

export default () => ({
  running: true,
  sent: 0,
  failed: 0,
  recent: [],
  hosts: [],
  problem: "",

  init() {
    poll(() => this.running && this.ask(), 500);
  },

  get label() {
    return this.running ? "Pause" : "Go on";
  },

  get sum() {
    const processes = this.hosts.reduce((sum, host) => sum + host.processes.length, 0);
    const failed = this.failed ? `, ${number(this.failed)} failed` : "";
    return `${number(this.sent)} requests, ${this.hosts.length} hosts, ${processes} processes${failed}`;
  },

  toggle() {
    this.running = !this.running;
  },

  async burst() {
    await Promise.all(Array.from({ length: 50 }, () => this.ask()));
  },

  async ask() {
    let shade = "failed";
    try {
      shade = this.count(await ask("/whoami"));
    } catch {
      this.failed += 1;
    }
    this.sent += 1;
    this.recent.push({ number: this.sent, colour: shade });
    if (this.recent.length > SHOWN) this.recent.shift();
  },

  // Counts an answer; returns the colour of its host.
  count(who) {
    const host = this.find(this.hosts, "name", who.host, () => ({
      colour: colour(who.host),
      count: 0,
      processes: [],
      releases: [],
    }));
    host.count += 1;
    const process = this.find(host.processes, "pid", who.pid, () => ({ count: 0 }));
    process.count += 1;
    const release = who.release.slice(0, 12);
    if (!host.releases.includes(release)) host.releases = [release, ...host.releases].slice(0, 2);
    const all = this.hosts.reduce((sum, each) => sum + each.count, 0);
    for (const each of this.hosts) {
      each.share = (100 * each.count) / all;
      each.percent = `${Math.round(each.share)} %`;
    }
    return host.colour;
  },

  // The member of a sorted list that has a name, put there if need be.
  find(list, key, name, make) {
    if (!list.some((each) => each[key] === name)) {
      list.push({ [key]: name, ...make() });
      list.sort((one, other) => (one[key] > other[key] ? 1 : -1));
    }
    return list.find((each) => each[key] === name);
  },
});

// The same for a host on every visit; hosts that are numbered have different ones.
function colour(host) {
  const sum = [...host].reduce((total, each) => total + each.codePointAt(0), 0);
  return `host-${sum % COLOURS}`;
}
