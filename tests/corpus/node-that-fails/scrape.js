const rows = undefined;
console.log(rows.length);
