// Not a module: it runs before the page is drawn, so that a dark page does not begin white.
"use strict";

(() => {
  try {
    const theme = localStorage.getItem("llamakit.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // a browser that keeps nothing: the system's colors it is
  }
})();
