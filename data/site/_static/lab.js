// A box that scrolls sideways can be reached and scrolled with the keyboard, too.
document.addEventListener("DOMContentLoaded", () => {
  const boxes = document.querySelectorAll(".content pre, .content .output, .content .table-wrapper");
  const mark = () => {
    for (const box of boxes) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  mark();
  addEventListener("resize", mark);
});
