// What the theme leaves out for readers who use a keyboard or a screen reader.
for (const summary of document.querySelectorAll("nav summary")) {
  const pages = summary.parentElement.parentElement.querySelector("a");
  summary.setAttribute("aria-label", `Pages below ${pages ? pages.textContent.trim() : "this one"}`);
}

const wide = ".math-display, .math-wide, .pst-scrollable-table-container, .bd-article pre";
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
