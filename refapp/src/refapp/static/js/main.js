// Gives each panel of the page its behaviour; the HTML of panels is in templates/panels.
import Alpine from "../vendor/alpine.js";
import computation from "./panels/computation.js";
import cron from "./panels/cron.js";
import jobs from "./panels/jobs.js";
import messages from "./panels/messages.js";
import requests from "./panels/requests.js";
import settings from "./panels/settings.js";
import totals from "./panels/totals.js";
import uploads from "./panels/uploads.js";
import users from "./panels/users.js";

const panels = { computation, cron, jobs, messages, requests, settings, totals, uploads, users };
for (const [name, panel] of Object.entries(panels)) Alpine.data(name, panel);
Alpine.start();
