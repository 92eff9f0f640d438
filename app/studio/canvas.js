/**
 * The boxes of a plan on the picture: drawn, dragged, resized, made.
 *
 * Konva draws and follows the pointer. What it reports becomes an edit of the plan; the boxes are
 * then drawn anew from the plan, so that the canvas never knows more than the plan does.
 */

import "./vendor/konva.min.js";
import { at } from "./dom.js";
import { MOST_DEPTH, emptyPlan, fromBackToFront, hueOf, newObject, tidy } from "./plan.js";

const { Konva } = globalThis;
const LEAST_DRAG_PX = 8;
const LEAST_BOX_PX = 10;

export function mountCanvas(store) {
  const container = at("stage");
  const stage = new Konva.Stage({ container, width: 1, height: 1 });
  const layer = new Konva.Layer();
  const transformer = makeTransformer();
  layer.add(transformer);
  stage.add(layer);
  const canvas = { store, stage, layer, transformer, isDrawing: false };

  function draw() {
    for (const node of [...layer.getChildren()]) if (node !== transformer) node.destroy();
    const objects = store.get("plan")?.objects ?? [];
    for (const index of fromBackToFront(objects)) {
      if (objects[index].box) layer.add(drawBox(canvas, objects[index], index));
    }
    transformer.moveToTop();
    choose();
    layer.draw(); // now, because a press may be on its way to one of these boxes
  }

  // apart from drawing, because a box that is chosen by pressing it is about to be dragged
  function choose() {
    const chosen = `box-${store.get("selected")}`;
    for (const rect of layer.find(".box")) {
      rect.strokeWidth(rect.id() === chosen ? 3.5 : 2);
      // no colour at all would let a press fall through to the stage
      rect.fill(rect.id() === chosen ? rect.getAttr("wash") : "rgba(0, 0, 0, 0)");
    }
    const node = layer.findOne(`#${chosen}`);
    transformer.nodes(node ? [node] : []);
    layer.batchDraw();
  }

  function fit() {
    const { clientWidth, clientHeight } = container;
    if (!clientWidth) return;
    stage.size({ width: clientWidth, height: clientHeight });
    draw();
  }

  // what is being typed belongs to the region that was chosen before this press
  container.addEventListener("pointerdown", () => document.activeElement?.blur(), { capture: true });
  new ResizeObserver(fit).observe(container);
  listenForNewBoxes(canvas);
  store.listen((changed) => {
    if (changed.has("plan")) draw();
    else if (changed.has("selected")) choose();
  });
  canvas.setDrawing = (isOn) => {
    canvas.isDrawing = isOn;
    layer.listening(!isOn);
    at("new-box").setAttribute("aria-pressed", String(isOn));
    container.classList.toggle("drawing", isOn);
  };
  at("new-box").addEventListener("click", (event) => {
    // a key press has no place to draw at
    if (event.detail === 0) createObject(store);
    else canvas.setDrawing(!canvas.isDrawing);
  });
  return canvas;
}

function makeTransformer() {
  const isCoarse = matchMedia("(pointer: coarse)").matches;
  return new Konva.Transformer({
    rotateEnabled: false,
    flipEnabled: false,
    keepRatio: false,
    ignoreStroke: true,
    anchorSize: isCoarse ? 18 : 11,
    anchorCornerRadius: 6,
    anchorStroke: "#1d1b19",
    anchorFill: "#ffffff",
    borderStroke: "#ffffff",
    borderDash: [4, 3],
    boundBoxFunc: (before, after) =>
      after.width < LEAST_BOX_PX || after.height < LEAST_BOX_PX ? before : after,
  });
}

function drawBox(canvas, thing, index) {
  const { stage } = canvas;
  const { width, height } = stage.size();
  const { x0, y0, x1, y1 } = thing.box;
  const hue = hueOf(index);
  const group = new Konva.Group();
  const halo = { x: x0 * width, y: y0 * height, width: (x1 - x0) * width, height: (y1 - y0) * height };
  const rect = new Konva.Rect({
    ...halo,
    id: `box-${index}`,
    name: "box",
    draggable: true,
    cornerRadius: 4,
    wash: `hsla(${hue}, 85%, 50%, 0.18)`,
    stroke: `hsl(${hue}, 85%, 62%)`,
    strokeScaleEnabled: false,
    shadowColor: "#000000",
    shadowBlur: 3,
    shadowOpacity: 0.7,
    shadowForStrokeEnabled: true,
    dragBoundFunc: (place) => ({
      x: Math.min(Math.max(place.x, 0), stage.width() - rect.width() * rect.scaleX()),
      y: Math.min(Math.max(place.y, 0), stage.height() - rect.height() * rect.scaleY()),
    }),
  });
  const label = drawLabel(thing, index, halo);
  rect.on("pointerdown", () => canvas.store.set({ selected: index }));
  rect.on("mouseenter", () => setCursor(stage, "move"));
  rect.on("mouseleave", () => setCursor(stage, ""));
  rect.on("dragmove transform", () => label.position({ x: rect.x() + 4, y: rect.y() + 4 }));
  rect.on("dragend transformend", () => keep(canvas, rect, index));
  group.add(rect, label);
  return group;
}

function drawLabel(thing, index, { x, y, width }) {
  const label = new Konva.Label({ x: x + 4, y: y + 4, listening: false });
  label.add(new Konva.Tag({ fill: "rgba(20, 18, 16, 0.82)", cornerRadius: 4 }));
  label.add(
    new Konva.Text({
      text: `${index + 1} ${thing.high}`,
      width: Math.max(width - 8, 24),
      wrap: "none",
      ellipsis: true,
      fontSize: 13,
      fontFamily: "system-ui, sans-serif",
      fill: "#ffffff",
      padding: 4,
    }),
  );
  return label;
}

function keep(canvas, rect, index) {
  const { width, height } = canvas.stage.size();
  const box = tidy({
    x0: rect.x() / width,
    y0: rect.y() / height,
    x1: (rect.x() + rect.width() * rect.scaleX()) / width,
    y1: (rect.y() + rect.height() * rect.scaleY()) / height,
  });
  canvas.store.edit((plan) => void (plan.objects[index].box = box), { selected: index });
}

/** A mouse draws on empty canvas at once; a finger only after New box, since it also scrolls. */
function listenForNewBoxes(canvas) {
  const { stage, layer, store } = canvas;
  let start = null;
  let ghost = null;
  stage.on("pointerdown", (event) => {
    const isEmpty = event.target === stage;
    const isMouse = event.evt.pointerType === "mouse" && event.evt.button === 0;
    if (!canvas.isDrawing && !(isEmpty && isMouse)) return;
    if (isEmpty) store.set({ selected: -1 });
    start = stage.getPointerPosition();
    ghost = new Konva.Rect({ ...start, stroke: "#ffffff", strokeWidth: 2, dash: [6, 4], listening: false });
    layer.add(ghost);
  });
  stage.on("pointermove", () => {
    if (!start) return;
    const now = stage.getPointerPosition();
    ghost.size({ width: now.x - start.x, height: now.y - start.y });
  });
  addEventListener("pointerup", (event) => {
    if (!start) return;
    stage.setPointersPositions(event);
    const from = start;
    const to = stage.getPointerPosition() ?? from;
    ghost.destroy();
    start = ghost = null;
    if (Math.abs(to.x - from.x) >= LEAST_DRAG_PX && Math.abs(to.y - from.y) >= LEAST_DRAG_PX) {
      const { width, height } = stage.size();
      const box = { x0: from.x / width, y0: from.y / height, x1: to.x / width, y1: to.y / height };
      addObject(store, box);
    }
    canvas.setDrawing(false);
  });
}

/** Begin a plan by hand where there is none. */
export function ensurePlan(store) {
  if (!store.get("plan")) store.edit(() => emptyPlan(store.get("prompt").trim()));
}

/** Make a region in the middle of the picture. */
export function createObject(store) {
  if (addObject(store, { x0: 0.35, y0: 0.35, x1: 0.65, y1: 0.65 })) at("high").select();
}

/** Whether a plan may have one more region; where not, it is said. */
export function hasRoom(store) {
  const most = store.get("server")?.max_objects ?? Infinity;
  const isRoom = (store.get("plan")?.objects.length ?? 0) < most;
  if (!isRoom) at("said").textContent = `A plan has at most ${most} regions: delete one first.`;
  return isRoom;
}

/** Add a region in front of all others and choose it. */
function addObject(store, box) {
  if (!hasRoom(store)) return false;
  ensurePlan(store);
  const { objects } = store.get("plan");
  const z = objects.length ? Math.max(...objects.map((thing) => thing.z)) + 1 : 0;
  store.edit((plan) => void plan.objects.push(newObject(box, Math.min(z, MOST_DEPTH))), { selected: objects.length });
  return true;
}

function setCursor(stage, cursor) {
  stage.container().style.cursor = cursor;
}
