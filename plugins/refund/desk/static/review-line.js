// The photos before one clerk: taken from the queue ahead of time, decided at once on the page, written behind it.
"use strict";

const reviewLine = (() => {
  const GIVE_UP_MS = 30000;
  const AHEAD = 1; // refunds held beyond the one being decided
  const PICTURES_AHEAD = 3;
  const MOST_UNDONE = 50;

  // words: { queue: "review" or "audit", most_passed_over, photos_at_once }; tell: { changed(), written(entry), undone(entry), ended(waiting), failed(text) }
  function create(words, tell) {
    let line = []; // { photo, refund, of, number, image }; the first is before the clerk
    let past = []; // { item, category, reviewId, skipped }, the last one last
    let chain = Promise.resolve(); // one request after the other, so that the server sees what the clerk did in order
    let askedAt = null; // the refund that was first when more was asked for
    let loading = 0;
    let problem = null; // why the queue could not be read when it was asked last
    const gone = new Set(); // decided here: not to come back with an answer that was on its way
    const skipped = new Set();
    const returning = new Set(); // taken back, and not yet known to the server

    const groupOf = (photo) => (photo.refund_id === null ? `photo ${photo.photo_id}` : `refund ${photo.refund_id}`);
    const named = ({ photo }) => ({ photo_date: photo.photo_date, photo_id: photo.photo_id });
    const soon = () => ({ signal: AbortSignal.timeout(GIVE_UP_MS) });
    const groups = () => new Set(line.map((item) => groupOf(item.photo))).size;

    function inTurn(act) {
      chain = chain.then(act, act);
      return chain;
    }

    function preload() {
      for (const item of line.slice(0, PICTURES_AHEAD)) {
        if (item.image) continue;
        item.image = desk.make("img", { alt: "", decoding: "async", src: desk.root + item.photo.picture.large });
      }
    }

    function changed() {
      preload();
      tell.changed();
    }

    // What the server says is held is what there is: a photo that went to somebody else disappears from the line.
    function merge(answer) {
      const known = new Map(line.map((item) => [item.photo.photo_id, item]));
      const first = line[0];
      const kept = line.filter((item) => returning.has(item.photo.photo_id));
      const held = answer.refunds.flatMap((refund) => {
        const seen = refund.photos.findIndex(({ photo_id: id }) => known.has(id));
        const before = seen < 0 ? 0 : known.get(refund.photos[seen].photo_id).number - seen - 1;
        const of = before + refund.photos.length;
        return refund.photos.map((photo, number) => {
          const old = known.get(photo.photo_id);
          return old ? Object.assign(old, { photo, refund }) : { photo, refund, of, number: before + number + 1 };
        });
      });
      const open = held.filter(({ photo }) => !gone.has(photo.photo_id) && !skipped.has(photo.photo_id) && !returning.has(photo.photo_id));
      line = [...kept, ...open];
      if (line.includes(first)) { // what the clerk looks at stays, and its refund with it
        const beside = (item) => groupOf(item.photo) === groupOf(first.photo);
        const rest = line.filter((item) => item !== first);
        line = [first, ...rest.filter(beside), ...rest.filter((item) => !beside(item))];
      } else if (first) tell.failed("The photo before you went to somebody else: your time for it had run out. Here is the next one.");
    }

    const claim = (more) => desk.ask("POST", "/api/review/claims", { queue: words.queue, also: AHEAD, passed_over: [...skipped], ...more }, soon());

    function load() {
      loading += 1;
      askedAt = line.length ? groupOf(line[0].photo) : null;
      return inTurn(async () => {
        try {
          const answer = await claim({});
          problem = null;
          merge(answer);
          if (!line.length) tell.ended(answer.waiting);
        } catch (error) {
          problem = error.text || error.message;
          tell.failed(problem);
        } finally {
          loading -= 1;
          changed();
        }
      });
    }

    function step() {
      const next = line.length ? groupOf(line[0].photo) : null;
      // The rest of a large refund is asked for while some of it is held, so that nobody else is given it.
      const cut = line.length > 0 && line[0].of >= words.photos_at_once && line.filter(({ photo }) => groupOf(photo) === next).length <= 2;
      if (!line.length || cut || (groups() <= AHEAD && next !== askedAt)) load();
      changed();
    }

    function remember(entry) {
      past = [...past, entry].slice(-MOST_UNDONE);
    }

    function decide(category, note) {
      const item = line.shift();
      if (!item) return;
      const entry = { item, category, reviewId: null, skipped: false };
      gone.add(item.photo.photo_id);
      remember(entry);
      inTurn(async () => {
        try {
          const body = { ...named(item), category, note: note || null };
          const answer = await desk.ask("POST", "/api/review/decisions", body, { ...soon(), keepalive: true });
          entry.reviewId = answer.review_id;
          tell.written(entry);
        } catch (error) {
          past = past.filter((other) => other !== entry);
          const lost = error.status === 404 || error.status === 409;
          if (line.includes(item)) { // taken back while it was on its way
            if (lost) line = line.filter((other) => other !== item);
          } else if (!lost) { // behind the photo before the clerk: what they look at must not change under their fingers
            gone.delete(item.photo.photo_id);
            line.splice(1, 0, item);
          }
          tell.failed(`${item.photo.filename} was not written. ${error.text || error.message}${lost ? "" : " It comes back next."}`);
          changed();
        }
      });
      step();
    }

    function skip() {
      const item = line.shift();
      if (!item) return;
      skipped.add(item.photo.photo_id);
      if (skipped.size > words.most_passed_over) skipped.delete(skipped.values().next().value); // the first of them comes again
      remember({ item, category: null, reviewId: null, skipped: true });
      inTurn(() => desk.ask("POST", "/api/review/release", { photos: [named(item)] }, soon()).catch(() => {}));
      step();
    }

    function undo() {
      const entry = past.pop();
      if (!entry) return;
      const id = entry.item.photo.photo_id;
      gone.delete(id);
      skipped.delete(id);
      line.unshift(entry.item);
      changed();
      returning.add(id);
      if (entry.skipped) return takeBack(entry);
      inTurn(async () => {
        try {
          if (entry.reviewId !== null) await desk.ask("POST", "/api/review/undo", { review_id: entry.reviewId }, soon());
          tell.undone(entry);
        } catch (error) {
          gone.add(id);
          line = line.filter((item) => item !== entry.item);
          tell.failed(`The verdict stands. ${error.text || error.message}`);
          changed();
        } finally {
          returning.delete(id);
        }
      });
    }

    // A photo that was skipped was let go: it is the clerk's again only if the server says so.
    function takeBack(entry) {
      const id = entry.item.photo.photo_id;
      inTurn(async () => {
        try {
          const answer = await claim({ photo: named(entry.item) });
          returning.delete(id);
          merge(answer);
          tell.undone(entry);
        } catch (error) {
          returning.delete(id);
          line = line.filter((item) => item !== entry.item);
          tell.failed(`It stays skipped. ${error.text || error.message}`);
          if (!line.length) load();
        }
        changed();
      });
    }

    function unskip() {
      skipped.clear();
      load();
    }

    // The page is being left: what is not decided goes to whoever asks next.
    function leave() {
      if (!line.length) return;
      desk.ask("POST", "/api/review/release", { photos: line.slice(0, 100).map(named) }, { keepalive: true }).catch(() => {});
    }

    return {
      load, decide, skip, undo, unskip, leave,
      get current() { return line[0] || null; },
      get canUndo() { return past.length > 0; },
      get isLoading() { return loading > 0; },
      get problem() { return problem; },
      get skipped() { return skipped.size; },
    };
  }

  return { create };
})();
