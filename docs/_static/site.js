// What the theme leaves out for readers who use a keyboard or a screen reader.
for (const summary of document.querySelectorAll("nav summary")) {
  const pages = summary.parentElement.parentElement.querySelector("a");
  summary.setAttribute("aria-label", `Pages below ${pages ? pages.textContent.trim() : "this one"}`);
}

const wide = ".math-display, .math-wide, .pst-scrollable-table-container, .bd-article pre";
const makeScrollable = () => {
  for (const box of document.querySelectorAll(wide)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
makeScrollable();
addEventListener("resize", makeScrollable);
