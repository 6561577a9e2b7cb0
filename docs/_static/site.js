// What the theme leaves out for readers who use a keyboard or a screen reader.
for (const summary of document.querySelectorAll("nav summary")) {
  const pages = summary.parentElement.parentElement.querySelector("a");
  summary.setAttribute("aria-label", `Pages below ${pages ? pages.textContent.trim() : "this one"}`);
}

// Long names in tables break at their dots and underscores.
for (const code of document.querySelectorAll(".bd-article td code")) {
  for (const piece of code.querySelectorAll(".pre").length ? code.querySelectorAll(".pre") : [code]) {
    piece.innerHTML = piece.innerHTML.replace(/([._\/])(?=\w)/g, "$1<wbr>");
  }
}

for (const picture of document.querySelectorAll(".cell_output img")) {
  const mark = () => picture.classList.toggle("wide-picture", picture.naturalWidth > 1.6 * picture.naturalHeight);
  if (picture.complete) mark();
  else picture.addEventListener("load", mark);
}

const wide = ".math-display, .math-wide, .pst-scrollable-table-container, .bd-article pre, .cell_output";
// After every layout: fonts and formulas come after this script, and a window changes its size.
const observer = new ResizeObserver((entries) => {
  for (const box of new Set(entries.map((entry) => entry.target.closest(wide)))) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(wide)) {
  observer.observe(box);
  for (const content of box.children) observer.observe(content);
}
