// The classes, or the several labels, of the images of a card.
function labelsOf(card) {
  const labels = [...card.querySelectorAll("figure")].map((figure) => figure.dataset.label);
  return document.getElementById("findings").dataset.kind === "multilabel"
    ? labels.flatMap((text) => text.split(";"))
    : labels;
}

const cards = [...document.querySelectorAll(".card")].map((card) => ({
  card,
  box: card.closest(".group").dataset.level,
  code: card.closest(".group").dataset.code,
  labels: labelsOf(card),
  paths: pathsOf(card),
  cells: [...card.querySelectorAll("[data-cells]")].map(cellsOf),
}));

// The cells of an image, by the number of their column.
function cellsOf(figure) {
  return new Map([...figure.querySelectorAll("dd")].map((cell) => [cell.dataset.column, cell.textContent]));
}

// What is chosen of a column: a text, "" for an empty cell, or a range, of which an end may be open.
const { column, cell, from, to } = form.elements;
let offered = ""; // the column whose cells are offered

function offerCells() {
  offered = column.value;
  const kind = column.selectedOptions[0].dataset.kind;
  const found = new Set(cards.flatMap(({ cells }) => cells.map((row) => row.get(offered) ?? "")));
  const names = [...found].sort().map((name) => new Option(name || "(empty)", name));
  cell.replaceChildren(new Option("all cells", ""), ...names);
  cell.parentElement.hidden = kind !== "text";
  for (const end of [from, to]) {
    end.type = kind === "text" || !kind ? "search" : kind;
    end.step = "any";
    end.value = "";
    end.parentElement.hidden = !kind || kind === "text";
  }
}

function matchesColumn(rows) {
  if (!column?.value) return true;
  const values = rows.map((row) => row.get(column.value) ?? "");
  if (column.selectedOptions[0].dataset.kind === "text") return values.length > 0 && chosen(cell, ...values);
  if (!from.value && !to.value) return true;
  const ordered = from.type === "number" ? Number : String; // dates are in order as texts
  const above = (value) => !from.value || ordered(value) >= ordered(from.value);
  const below = (value) => !to.value || ordered(value) <= ordered(to.value);
  return values.some((value) => value && above(value) && below(value));
}

function filter() {
  if (column && column.value !== offered) offerCells();
  const visible = show(cards, ({ code, cells }) => chosen(form.elements.code, code) && matchesColumn(cells));
  form.querySelector("output").value = "Showing " + visible.length + " of " + cards.length + " cards";
  galleries.forEach(enterFirst);
}

// What can be enlarged: samples, and findings with a picture. Of each gallery one is reached with Tab, others with arrows.
const galleries = [".sample", ".card"].map((selector) => ({
  items: [...document.querySelectorAll(selector)].filter((item) => item.querySelector("img")),
  current: null,
}));

function galleryOf(item) {
  return galleries.find(({ items }) => items.includes(item));
}

function visibleItems(gallery) {
  return gallery.items.filter((item) => !item.hidden);
}

function enter(gallery, item) {
  if (gallery.current) gallery.current.tabIndex = -1;
  gallery.current = item;
  if (item) item.tabIndex = 0;
}

function enterFirst(gallery) {
  if (!gallery.current || gallery.current.hidden) enter(gallery, visibleItems(gallery)[0] ?? null);
}

// The item `step` after another of its gallery.
function neighbour(item, step) {
  const items = visibleItems(galleryOf(item));
  return items[items.indexOf(item) + step];
}

// The next item, up or down, that stands in the same column.
function below(item, step) {
  const left = item.getBoundingClientRect().left;
  const items = visibleItems(galleryOf(item)).filter((other) => Math.abs(other.getBoundingClientRect().left - left) < 2);
  return items[items.indexOf(item) + step];
}

function focusOn(item) {
  if (!item) return;
  enter(galleryOf(item), item);
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
}

// Escape closes a dialog by itself, and what opened it has the focus again.
const dialog = document.querySelector("dialog");
let enlarged = null; // the item in the dialog
let opened = null; // the item that it was opened on

function enlarge(item) {
  const figures = item.matches("figure") ? [item] : item.querySelectorAll("figure");
  dialog.querySelector(".figures").replaceChildren(...copies(figures));
  dialog.querySelector(".seen").replaceChildren(...copies(item.querySelector(".seen")?.childNodes ?? []));
  for (const figure of dialog.querySelectorAll("figure")) figure.removeAttribute("tabindex");
  for (const figure of dialog.querySelectorAll("[data-file]")) showFile(figure);
  for (const cells of dialog.querySelectorAll(".cells")) cells.open = true;
  for (const name of ["previous", "next"]) {
    dialog.querySelector("[name=" + name + "]").disabled = !neighbour(item, name === "next" ? 1 : -1);
  }
  enlarged = item;
  if (dialog.open) return;
  opened = item;
  dialog.showModal();
  dialog.querySelector(".buttons button:not(:disabled)").focus({ preventScroll: true }); // not what comes first, the cells
  dialog.scrollTop = 0;
}

function copies(nodes) {
  return [...nodes].map((node) => node.cloneNode(true));
}

// The image's file in place of its small picture, where it is beside the page and the browser can show it.
function showFile(figure) {
  const raw = document.querySelector("main").dataset.raw;
  if (!raw || location.protocol !== "file:") return;
  const file = new Image();
  file.addEventListener("load", () => (figure.querySelector("img").src = file.src));
  file.src = raw + figure.dataset.file;
}

function turn(step) {
  const item = neighbour(enlarged, step);
  if (item) enlarge(item);
}

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const item = event.target;
  const keys = dialog.open
    ? { ArrowRight: () => turn(1), ArrowLeft: () => turn(-1), j: () => turn(1), k: () => turn(-1) }
    : galleryOf(item)
      ? {
          ArrowRight: () => focusOn(neighbour(item, 1)),
          ArrowLeft: () => focusOn(neighbour(item, -1)),
          ArrowDown: () => focusOn(below(item, 1)),
          ArrowUp: () => focusOn(below(item, -1)),
          Enter: () => enlarge(item),
          " ": () => enlarge(item),
        }
      : {};
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
}

for (const { items } of galleries) {
  for (const item of items) {
    item.tabIndex = -1;
    item.classList.add("opens");
  }
}
galleries.forEach(enterFirst);
for (const hint of document.querySelectorAll(".keys")) hint.hidden = false;
for (const cells of document.querySelectorAll(".cells summary")) cells.tabIndex = -1; // hundreds; an enlarged picture shows all
for (const button of document.querySelectorAll(".compare")) button.hidden = !button.closest(".opens");
document.addEventListener("keydown", press);
document.addEventListener("focusin", ({ target }) => {
  const gallery = galleryOf(target);
  if (gallery) enter(gallery, target);
});
document.querySelector("main").addEventListener("click", ({ target }) => {
  const item = target.closest(".opens");
  if (item && target.closest("img, .compare")) enlarge(item);
});
dialog.addEventListener("click", ({ target }) => {
  const does = { previous: () => turn(-1), next: () => turn(1), close: () => dialog.close() };
  if (target === dialog) dialog.close(); // the backdrop
  else does[target.name]?.();
});
dialog.addEventListener("close", () => {
  if (enlarged !== opened) focusOn(enlarged); // else the browser gives it back
});

if (cards.length > 0) start(filter); // else there is nothing to filter
