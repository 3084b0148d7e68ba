// What panels share: asking again and again, and words for times and sizes.
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Works again and again while somebody looks, `pause` ms after the end of the time before.
export async function poll(work, pause) {
  for (;;) {
    if (!document.hidden) await work();
    await sleep(typeof pause === "function" ? pause() : pause);
  }
}

// Does what may fail for a panel, and shows there why it did.
export async function attempt(panel, work) {
  try {
    const answer = await work();
    panel.problem = "";
    return answer;
  } catch (error) {
    panel.problem = error.message;
    return null;
  }
}

const clock = new Intl.DateTimeFormat([], { timeStyle: "medium" });
const whole = new Intl.NumberFormat();

export const number = (value) => whole.format(value);
export const time = (iso) => clock.format(new Date(iso));

// "4 s", "12 min", "3 h" from a number of milliseconds.
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export function weight(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
