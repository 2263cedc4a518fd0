const cards = [...document.querySelectorAll(".card")].map((card) => ({
  card,
  box: card.closest(".group").dataset.level,
  code: card.closest(".group").dataset.code,
  labels: [...card.querySelectorAll("figure")].map((figure) => figure.dataset.label),
  paths: pathsOf(card),
}));

function filter() {
  const visible = show(cards, ({ code }) => chosen(form.elements.code, code));
  form.querySelector("output").value = "Showing " + visible.length + " of " + cards.length + " cards";
}

// Escape closes a dialog by itself, and the button that opened it has the focus again.
const dialog = document.querySelector("dialog");
function compare(card) {
  for (const part of [".figures", ".seen"]) {
    const copies = [...card.querySelector(part).childNodes].map((node) => node.cloneNode(true));
    dialog.querySelector(part).replaceChildren(...copies);
  }
  dialog.showModal();
}
dialog.querySelector("button").addEventListener("click", () => dialog.close());
for (const card of document.querySelectorAll(".pair")) {
  const button = card.querySelector(".compare");
  button.hidden = false;
  button.addEventListener("click", () => compare(card));
  for (const img of card.querySelectorAll("img")) img.addEventListener("click", () => compare(card));
}

if (cards.length > 0) start(filter); // else there is nothing to filter
