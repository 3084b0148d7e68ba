// Changes settings, and asks the fleet until it has seen them in effect.
import { api } from "../api.js";
import { attempt, sleep } from "../tools.js";

const ASKED = 30; // times, by whatever processes the balancer chooses

export default () => ({
  news: "Whoever saves hears which processes have the new value.",
  problem: "",

  async change({ target: form }) {
    this.news = "";
    const { name, type } = form.dataset;
    const input = form.elements.value;
    const value = type === "boolean" ? input.checked : input.value;
    const changed = await attempt(this, () => api("PUT", `/settings/${name}`, { value }));
    if (!changed) return;
    this.news = "Saved. Asking the processes …";
    if (name === "banner") announce(value);
    await attempt(this, () => this.prove(name, value));
  },

  async prove(name, value) {
    const seen = new Map(); // process → [host, whether it has the value]
    for (let asked = 0; asked < ASKED; asked += 1) {
      const { settings, host, instance } = await api("GET", "/settings");
      const has = settings.find((each) => each.name === name).value === value;
      seen.set(instance, [host, has]);
      await sleep(40);
    }
    const processes = [...seen.values()];
    const having = processes.filter(([, has]) => has);
    const hosts = new Set(having.map(([host]) => host));
    this.news = `Saved. In effect in ${having.length} of the ${processes.length} processes that answered, on ${[...hosts].sort().join(", ")}.`;
  },
});

function announce(text) {
  const banner = document.querySelector("[data-banner]");
  banner.textContent = text;
  banner.hidden = !text;
}
