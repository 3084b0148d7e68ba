// Subsets that add up to a target, as a process of the fleet finds them.
import { stream } from "../api.js";
import { number } from "../tools.js";

const SHOWN = 50;
const CUT = "The stream was cut off. Compute it again.";
const ENDS = {
  complete: "Complete",
  limit: "Ended: so many subsets are enough",
  time: "Ended: its time was up",
  stopping: "Ended: that host is being restarted. Compute again, and another one answers",
  failed: "Ended: the program failed",
};

export default () => ({
  busy: false,
  count: 0,
  found: [], // the newest first
  seconds: "–",
  news: "Even numbers never add up to an odd one: try that, and cancel it.",
  problem: "",

  get label() {
    return this.busy ? "Cancel" : "Compute";
  },

  get matches() {
    return number(this.count);
  },

  // One button, so that the keyboard's focus stays where it is.
  toggle() {
    return this.busy ? this.cancel() : this.compute();
  },

  cancel() {},

  async compute() {
    const stop = new AbortController();
    this.cancel = () => stop.abort();
    Object.assign(this, { busy: true, ended: false, count: 0, found: [], news: "", problem: "" });
    const began = Date.now();
    const look = () => (this.seconds = `${((Date.now() - began) / 1000).toFixed(1)} s`);
    const clock = setInterval(look, 100);
    try {
      await this.read(stop.signal);
      if (stop.signal.aborted) this.news = "Cancelled; its process is stopped, too.";
      else if (!this.ended) this.problem = CUT;
    } catch (error) {
      this.problem = error.message;
    }
    if (this.problem) this.news = "";
    clearInterval(clock);
    look();
    this.busy = false;
  },

  async read(signal) {
    const data = JSON.stringify(whole(this.$refs.numbers.value));
    const task = new URLSearchParams({ data, sum: this.$refs.sum.value });
    try {
      for await (const lines of stream(`/subset-sum?${task}`, signal)) lines.forEach(this.hear, this);
    } catch (error) {
      if (!signal.aborted) throw error.status === 0 ? new Error(CUT) : error;
    }
  },

  hear({ event, subset, reason, steps }) {
    this.ended = event === "end";
    if (event === "waiting") this.news = "Waiting for a free process …";
    if (event === "running") this.news = "Computing …";
    if (event === "end") this.news = `${ENDS[reason]}.${steps ? ` ${number(steps)} steps.` : ""}`;
    if (event !== "match") return;
    this.count += 1;
    this.found.unshift({ id: this.count, sum: subset.join(" + ").replaceAll("+ -", "− ") });
    if (this.found.length > SHOWN) this.found.pop();
  },
});

// The whole numbers of a text, however they are set apart.
function whole(text) {
  const words = text.split(/[\s,;]+/).filter(Boolean);
  const wrong = words.find((word) => !/^-?\d+$/.test(word));
  if (wrong) throw new Error(`“${wrong}” is not a whole number.`);
  return words.map(Number);
}
