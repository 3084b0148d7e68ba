// The total of an item: where it came from, and how soon a sale is in it.
import { api, bodyOf, reach } from "../api.js";
import { attempt, number, poll, sleep } from "../tools.js";

const LONGEST = 5000; // ms that a sale is looked for; a second is what is promised

export default () => ({
  total: "–",
  count: "–",
  origin: "–",
  took: "–",
  busy: false,
  news: "",
  problem: "",

  init() {
    this.turn = 0;
    this.choose();
    poll(() => this.busy || this.look().catch(() => {}), 3000);
  },

  choose() {
    if (this.busy) return;
    this.item = this.$refs.item.value.trim();
    this.news = "";
    attempt(this, () => this.look());
  },

  // Shows the total of now; returns how many sales are in it.
  async look() {
    const turn = ++this.turn;
    const began = performance.now();
    const answer = await reach(`/sales/total?item=${encodeURIComponent(this.item)}`);
    const found = await bodyOf(answer);
    if (turn !== this.turn) return found.count; // a later answer may stand there
    this.took = `${Math.round(performance.now() - began)} ms`;
    this.total = number(found.total);
    this.count = number(found.count);
    this.origin = origin(answer.headers);
    return found.count;
  },

  async sell() {
    if (this.busy) return;
    this.busy = true;
    this.news = "Recording a sale …";
    await attempt(this, () => this.prove(this.$refs.amount.valueAsNumber));
    if (this.problem) this.news = "";
    this.busy = false;
  },

  async prove(amount) {
    this.item = this.$refs.item.value.trim();
    const before = await this.look();
    await api("POST", "/sales", { item: this.item, amount });
    const recorded = performance.now();
    const passed = () => Math.round(performance.now() - recorded);
    while ((await this.look()) <= before) {
      if (passed() > LONGEST) throw new Error("The sale is recorded, but the total is still old.");
      await sleep(50);
    }
    this.news = `Sold for ${number(amount)}. The total had it ${passed()} ms after that was recorded.`;
  },
});

// In words, from what the cache says of itself and how long it may keep an answer.
function origin(headers) {
  const state = headers.get("X-Cache");
  const [, seconds] = /s-maxage=(\d+)/.exec(headers.get("Cache-Control")) ?? [];
  if (["HIT", "REVALIDATED"].includes(state)) return `the edge's cache, at most ${seconds} s old`;
  if (["STALE", "UPDATING"].includes(state)) return "the edge's cache, older than it should be";
  return "the application, asked just now";
}
