"use strict";
// The list is shown by this script only: without JavaScript the page has no quotes.
const list = document.querySelector("main");
const grid = document.getElementById("quotes");
const pager = document.getElementById("pager");

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function card(quote) {
  const made = element("article", "card quote", "");
  made.dataset.id = quote.id;
  const tags = element("div", "tags", "");
  tags.append(...quote.tags.map((tag) => element("span", "tag", tag)));
  made.append(element("p", "text", quote.text), element("span", "author", quote.author), tags);
  return made;
}

function turn(rel, label, page) {
  const link = element("a", "", label);
  link.rel = rel;
  link.href = `?page=${page}`;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    history.pushState({}, "", link.href);
    show(page);
  });
  return link;
}

async function show(page) {
  list.setAttribute("aria-busy", "true");
  const response = await fetch(`api/quotes?page=${page}`);
  if (!response.ok) throw new Error(`quotes: HTTP ${response.status}`);
  const found = await response.json();
  grid.replaceChildren(...found.quotes.map(card));
  const turns = [element("span", "", `${found.page} of ${found.pages}`)];
  if (found.page > 1) turns.unshift(turn("prev", "Previous", found.page - 1));
  if (found.page < found.pages) turns.push(turn("next", "Next", found.page + 1));
  pager.replaceChildren(...turns);
  list.dataset.page = found.page;
  list.setAttribute("aria-busy", "false");
}

const asked = () => Number(new URLSearchParams(location.search).get("page")) || 1;
window.addEventListener("popstate", () => show(asked()));
show(asked());
