// Slider of a view: 0 shows the image alone, 100 the map.
"use strict";
for (const slider of document.querySelectorAll(".slider input")) {
  const map = slider.closest("figure").querySelector(".map");
  const show = () => { map.style.opacity = slider.value / 100; };
  slider.addEventListener("input", show);
  show();
}
