// Queues jobs, and follows them.
import { api } from "../api.js";
import { attempt, number, poll, span } from "../tools.js";

const ORDERS = {
  work: { kind: "drill", args: { seconds: 5 } },
  report: { kind: "sales-report" },
  fail: { kind: "drill", args: { failures: 2 }, max_attempts: 2 },
};
const ENDED = ["done", "dead", "expired"];

export default () => ({
  mine: [],
  dead: [],
  news: "", // for who does not see the bars
  problem: "",

  init() {
    poll(() => this.look(), () => (this.mine.every((job) => job.ended) ? 4000 : 700));
  },

  async look() {
    const [mine, dead] =
      (await attempt(this, () =>
        Promise.all([
          api("GET", "/jobs?mine=true&limit=3"),
          api("GET", "/jobs?state=dead&limit=20"),
        ]),
      )) ?? [];
    if (!mine) return;
    const open = this.mine.filter((job) => !job.ended).map((job) => job.id);
    this.mine = mine.jobs.map(shown);
    this.dead = dead.jobs.map(shown);
    const ended = this.mine.filter((job) => job.ended && open.includes(job.id));
    if (ended.length) this.news = ended.map((job) => `${job.title}: ${job.state}`).join(", ");
  },

  async queue() {
    const order = ORDERS[this.$refs.job.value];
    const job = await attempt(this, () => api("POST", "/jobs", order));
    if (!job) return;
    this.news = "Queued.";
    this.mine = [shown(job), ...this.mine].slice(0, 3);
    await this.look();
  },

  async retry(job) {
    if (await attempt(this, () => api("POST", `/jobs/${job.id}/retry`))) await this.look();
  },
});

function shown(job) {
  const title = titles[job.kind]?.(job.args) ?? job.kind;
  return {
    ...job,
    title,
    ended: ENDED.includes(job.state),
    progress: job.state === "done" ? 100 : job.progress,
    note: note(job),
    retry: `Retry ${title}`,
  };
}

const titles = {
  drill: ({ seconds, failures }) => (failures ? "Work that fails" : `${seconds} seconds of work`),
  "sales-report": () => "Report of all sales",
};

function note(job) {
  const at = job.host ? ` on ${job.host}` : "";
  if (job.state === "done") {
    const took = span(new Date(job.finished_at) - new Date(job.started_at));
    return `Done${at} in ${took}${result(job)}`;
  }
  if (job.error) return `${job.failures} of ${job.max_attempts} attempts failed: ${job.error}`;
  if (job.state === "running") return `Running${at}${job.message ? `, ${job.message}` : ""}`;
  return job.state === "queued" ? "Waiting for a worker" : "";
}

function result({ kind, result: found }) {
  if (kind !== "sales-report" || !found) return "";
  return `: ${number(found.count)} sales of ${number(found.items)} items`;
}
