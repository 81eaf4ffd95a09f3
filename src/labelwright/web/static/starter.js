"use strict"; // what the page needs to be seen comes first, its scripts after the first paint
(() => {
  const script = document.createElement("script");
  script.src = document.currentScript.dataset.scripts;
  const add = () => document.head.append(script);
  const loaded = () => document.readyState === "complete" ? add() : addEventListener("load", add, { once: true });
  if (!window.PerformanceObserver?.supportedEntryTypes?.includes("paint")) { loaded(); return; }
  new PerformanceObserver((_, seen) => { seen.disconnect(); loaded(); }).observe({ type: "paint", buffered: true });
})();
