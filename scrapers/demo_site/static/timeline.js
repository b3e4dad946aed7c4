"use strict";
const list = document.getElementById("notes");
const older = document.getElementById("older");
let last;

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function article(note) {
  const made = element("article", "note", "");
  const head = element("small", "", `${note.user.name} @${note.user.username} · ${note.createdAt.slice(0, 16).replace("T", " ")}`);
  const faces = Object.entries(note.reactions).map(([face, count]) => element("span", "reaction", `${face} ${count}`));
  made.append(head, element("p", "", note.text ?? "(silence)"), ...faces);
  return made;
}

async function show() {
  const response = await fetch("api/notes/local-timeline", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ limit: 12, ...(last && { untilId: last }) }),
  });
  const notes = await response.json();
  if (!response.ok) throw new Error(notes.error.code);
  list.append(...notes.map(article));
  last = notes.at(-1)?.id ?? last;
  older.hidden = notes.length < 12;
  document.querySelector("main").setAttribute("aria-busy", "false");
}

older.addEventListener("click", show);
show();
