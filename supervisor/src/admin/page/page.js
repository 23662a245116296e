"use strict";
// Takes the page anew and puts its content in the place of what is shown. The server
// writes every word of it, so that there is one place where words become markup.
const EVERY = 2000;
const stale = document.getElementById("stale");
async function refresh() {
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(next.querySelector("main"));
    document.title = next.title;
    stale.hidden = true;
  } catch {
    stale.hidden = false;
    document.title = "no answer · prefork";
  }
}
async function live() {
  if (!document.hidden) await refresh();
  setTimeout(live, EVERY);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setTimeout(live, EVERY);
