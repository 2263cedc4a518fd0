const cards = [...document.querySelectorAll(".card")].map((card) => ({
  card,
  box: card.closest(".group").dataset.kind,
  labels: [card.dataset.labelA, card.dataset.labelB],
  splits: [card.dataset.splitA, card.dataset.splitB],
  paths: pathsOf(card),
}));
const dialog = document.querySelector("dialog");
const range = dialog.querySelector("input");
let current = null; // the card that the keys start from
let opened = null; // the card in the dialog

function filter() {
  const visible = show(cards, ({ splits }) => chosen(form.elements.split, ...splits));
  form.querySelector("output").value = "Showing " + visible.length + " of " + cards.length;
  if (current === null || current.hidden) enter(visible[0] ?? null);
}

function shown() {
  return cards.map(({ card }) => card).filter((card) => !card.hidden);
}

// One card at a time is reached with Tab, or thousands would stand before whatever follows.
function enter(card) {
  if (current) current.tabIndex = -1;
  current = card;
  if (current) current.tabIndex = 0;
}

// The card `step` after the current one among those that `fits`; the current one first, if none has the focus.
function neighbour(step, fits = () => true) {
  const from = dialog.open ? opened : current;
  const visible = shown().filter((card) => card === from || fits(card));
  const at = visible.indexOf(from);
  return dialog.open || document.activeElement.closest(".card") === from ? visible[at + step] : visible[at];
}

// The nearest card of the same column.
function below(step) {
  const box = current?.getBoundingClientRect();
  const fits = (card) => Math.abs(card.getBoundingClientRect().left - box.left) < 2;
  return current && neighbour(step, fits);
}

function focus(card) {
  if (!card) return;
  enter(card);
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

function open(card) {
  const [before, after] = ["before", "after"].map((side) => card.querySelector("figure." + side + " img"));
  dialog.querySelector(".over").src = before.src;
  dialog.querySelector(".under").src = after.src;
  for (const part of [".paths", ".facts"]) dialog.querySelector(part).innerHTML = card.querySelector(part).innerHTML;
  opened = card;
  if (!dialog.open) dialog.showModal();
  slide(50);
  range.focus();
}

function slide(at) {
  range.value = at;
  range.setAttribute("aria-valuetext", range.value + " % before");
  dialog.querySelector(".stack").style.setProperty("--at", range.value + "%");
}

function swipe(step) {
  const next = neighbour(step, (card) => card.querySelector(".swipe"));
  if (next) open(next);
}

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const keys = dialog.open
    ? { j: () => swipe(1), k: () => swipe(-1) }
    : event.target.matches("input, select, summary, .scroll")
      ? {}
      : { j: () => focus(neighbour(1)), k: () => focus(neighbour(-1)), "/": () => text.focus() };
  if (event.target.matches(".card")) {
    Object.assign(keys, {
      ArrowRight: () => focus(neighbour(1)),
      ArrowLeft: () => focus(neighbour(-1)),
      ArrowDown: () => focus(below(1)),
      ArrowUp: () => focus(below(-1)),
      Enter: () => event.target.querySelector(".swipe")?.click(),
    });
  }
  if (event.target === text) keys.Escape = () => (text.value = "", filter(), focus(current));
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
}

if (cards.length > 0) { // else there is nothing to filter
  for (const part of document.querySelectorAll(".keys, .swipe")) part.hidden = false;
  document.addEventListener("keydown", press);
  document.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (card) enter(card);
  });
  document.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (card?.querySelector(".swipe") && event.target.closest(".swipe, .figures")) open(card);
  });
  range.addEventListener("input", () => slide(range.value));
  dialog.addEventListener("close", () => focus(opened));
  dialog.addEventListener("click", ({ target }) => {
    const does = { previous: () => swipe(-1), next: () => swipe(1), close: () => dialog.close() };
    if (target === dialog) dialog.close(); // the backdrop
    else does[target.name]?.();
  });
  start(filter);
}
