// Sends pictures straight to the object store, and shows what is there.
import { api, Problem } from "../api.js";
import { attempt, weight } from "../tools.js";

const SHOWN = 4;
const LARGEST = 20e6; // bytes; the store takes far larger ones, in parts

export default () => ({
  files: [],
  busy: false,
  progress: 0,
  news: "Pictures up to 20 MB.",
  problem: "",

  init() {
    attempt(this, () => this.look());
  },

  get bar() {
    return this.busy ? "busy" : "";
  },

  async look() {
    const { uploads } = await api("GET", "/uploads?limit=20");
    const pictures = uploads.filter((file) => file.content_type.startsWith("image/"));
    this.files = pictures.slice(0, SHOWN).map((file) => ({ ...file, weight: weight(file.size) }));
  },

  async send() {
    const [file] = this.$refs.file.files;
    if (!file || this.busy) return;
    this.busy = true;
    this.progress = 0;
    await attempt(this, () => this.upload(file));
    this.busy = false;
  },

  async upload(file) {
    if (file.size > LARGEST) throw new Error("The file is larger than 20 MB.");
    this.news = `Sending ${file.name}`;
    const announced = await api("POST", "/uploads", {
      filename: file.name,
      content_type: file.type || "application/octet-stream",
      size: file.size,
    });
    await put(announced.upload, file, (percent) => (this.progress = percent));
    await api("POST", `/uploads/${announced.id}/complete`);
    await this.look();
    this.news = `${file.name} is in the store.`;
    this.$refs.file.value = "";
  },
});

// fetch does not tell how far it is.
function put({ method, url, headers }, file, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.upload.onprogress = ({ loaded, total }) => progress((100 * loaded) / total);
    request.onload = () =>
      request.status < 300 ? resolve() : reject(new Problem(request.status, {}));
    request.onerror = () => reject(new Error("The object store did not take the file."));
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.send(file);
  });
}
