// A box that scrolls sideways says so, and can be scrolled with the keyboard, too.
document.addEventListener("DOMContentLoaded", () => {
  const boxes = document.querySelectorAll(".content pre, .content .output, .content .table-wrapper");
  const mark = () => {
    for (const box of boxes) {
      const wide = box.scrollWidth > box.clientWidth;
      box.classList.toggle("scrolls", wide);
      if (wide) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  mark();
  addEventListener("resize", mark);
});
