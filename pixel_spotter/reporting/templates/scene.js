// Dragging in the picture: the spot that is closest to where it began follows, in px.
let held = null;
const place = (event) => {
  const image = element.querySelector("image");
  const box = image.getBoundingClientRect();
  const side = image.width.baseVal.value;
  const at = [event.clientX - box.left, event.clientY - box.top];
  return at.map((from) => Math.min(Math.max((from / box.width) * side - 0.5, 0), side - 1));
};
const send = (event) => {
  const [x, y] = place(event).map((at) => Math.round(at * 100) / 100);
  trigger("select", { spot: held, x, y });
};
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("svg")) return;
  const at = place(event);
  const spots = [...element.querySelectorAll("[data-spot]")].map((spot) => {
    const { e, f } = spot.transform.baseVal.consolidate().matrix;
    return Math.hypot(e - at[0], f - at[1]);
  });
  held = spots.indexOf(Math.min(...spots));
  element.setPointerCapture(event.pointerId);
  event.preventDefault();
  send(event);
});
element.addEventListener("pointermove", (event) => held !== null && send(event));
for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (held = null));
