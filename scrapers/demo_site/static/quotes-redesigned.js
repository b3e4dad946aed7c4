"use strict";
// The same quotes after a redesign that nobody announced: other elements, other names.
async function show() {
  const found = await (await fetch("api/quotes?page=1")).json();
  const rows = found.quotes.map((quote) => {
    const row = document.createElement("blockquote");
    row.className = "card saying";
    row.textContent = `${quote.text} (${quote.author})`;
    return row;
  });
  document.getElementById("quotes").replaceChildren(...rows);
  document.querySelector("main").setAttribute("aria-busy", "false");
  console.warn("the redesign is not finished");
}
show();
