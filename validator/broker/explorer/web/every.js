// On every page: copying of ids, times as they pass, and the width that a test reads.

const STEPS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function ago(seconds) {
  const [size, unit] = STEPS.find(([least]) => seconds >= least) ?? STEPS[3];
  return `${Math.floor(Math.max(0, seconds) / size)} ${unit} ago`;
}

function passTime() {
  for (const node of document.querySelectorAll("time[data-ago]")) {
    const seconds = (Date.now() - Date.parse(node.dateTime)) / 1000;
    if (seconds >= 0) node.textContent = ago(seconds);
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button === null) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.dataset.done = "yes";
  setTimeout(() => delete button.dataset.done, 1200);
});

document.documentElement.dataset.program = "yes";
document.body.dataset.overflow = String(document.documentElement.scrollWidth - innerWidth);
passTime();
setInterval(passTime, 1000);
