// Before anything is painted, so that no page flashes in the other theme.
"use strict";
(() => {
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
})();
