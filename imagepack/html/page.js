"use strict";
const form = document.getElementById("filters");
const { class: classes, text } = form.elements;

// File systems spell é in one character or in two; a keyboard gives one.
function plain(string) {
  return string.normalize("NFC").toLowerCase();
}

function pathsOf(card) {
  return [...card.querySelectorAll(".path")].map((path) => plain(path.textContent));
}

// Whether a select, if there is one, says all, or one of these values; "" is one too: no class, no split.
function chosen(select, ...values) {
  return !select || select.selectedIndex === 0 || values.includes(select.value);
}

// Show the cards that the form asks for, and the groups that have any; return these cards.
// An entry has card, box (the value of its checkbox), labels and paths; `matches` asks what else the page filters by.
function show(entries, matches) {
  const boxes = [...form.querySelectorAll("[type=checkbox]:checked")].map((box) => box.value);
  const part = plain(text.value.trim());
  for (const entry of entries) {
    const { card, box, labels, paths } = entry;
    const fits = boxes.includes(box) && chosen(classes, ...labels) && paths.some((path) => path.includes(part));
    card.hidden = !(fits && matches(entry));
  }
  for (const group of document.querySelectorAll(".group")) group.hidden = !group.querySelector(".card:not([hidden])");
  const visible = entries.map(({ card }) => card).filter((card) => !card.hidden);
  document.querySelector(".unmatched").hidden = visible.length > 0;
  return visible;
}

function start(filter) {
  form.hidden = false;
  form.addEventListener("input", filter);
  form.querySelector("[type=reset]").addEventListener("click", (event) => {
    event.preventDefault(); // otherwise the fields are reset after this
    form.reset();
    filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

