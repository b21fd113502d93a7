// Dragging in the picture: the spot that is closest to where it began follows, in px.
let held = null; // which spot
let waiting = false; // for the answer to what was told last
let next = null; // what to tell after that
let count = 0; // has each answer be another, so that it is seen

const place = (event) => {
  const image = element.querySelector("image");
  const box = image.getBoundingClientRect();
  const side = image.width.baseVal.value;
  const at = [event.clientX - box.left, event.clientY - box.top];
  return at.map((from) => Math.min(Math.max((from / box.width) * side - 0.5, 0), side - 1));
};
const tell = (told) => {
  if (waiting) {
    next = told;
  } else {
    waiting = true;
    next = null;
    trigger("select", told);
  }
};
const follow = (event) => {
  const [x, y] = place(event).map((at) => Math.round(at * 100) / 100);
  tell({ spot: held, x, y, count: ++count });
};
watch("value", () => {
  waiting = false;
  if (next) tell(next);
});
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("svg")) return;
  const at = place(event);
  const away = [...element.querySelectorAll("[data-spot]")].map((spot) => {
    const { e, f } = spot.transform.baseVal.consolidate().matrix;
    return Math.hypot(e - at[0], f - at[1]);
  });
  held = away.indexOf(Math.min(...away));
  waiting = false; // whatever became of the last
  element.setPointerCapture(event.pointerId);
  event.preventDefault();
  follow(event);
});
element.addEventListener("pointermove", (event) => held !== null && follow(event));
for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (held = null));
