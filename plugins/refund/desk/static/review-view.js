// Shows a photo, what is proposed for it, and the list of all categories.
"use strict";

const reviewView = (() => {
  const { make, visible } = desk;
  const NUMBERED = 9;
  const LEAST_SHOWN = 0.005; // of the score: less is no proposal
  const at = (id) => document.getElementById(id);

  // What is proposed for a photo: [{ key, category, from, score }]; key: what decides for it.
  function proposals(photo, words) {
    if (photo.predicted_category === null) return [];
    const { predicted_category: predicted, declared_category: declared } = photo;
    const found = [{ key: "Enter", category: predicted, from: predicted === declared ? "the machine, and declared" : "the machine", score: photo.category_score }];
    if (declared && declared !== predicted) {
      const score = photo.category_scores.find((each) => each.category === declared);
      found.push({ key: "D", category: declared, from: "declared by the customer", score: score ? score.score : 0 });
    }
    const rest = photo.category_scores.filter(({ category, score }) => score >= LEAST_SHOWN && category !== predicted && category !== declared && category !== words.not_a_product);
    return [...found, ...rest.slice(0, NUMBERED).map(({ category, score }, index) => ({ key: String(index + 1), category, from: "", score }))];
  }

  function create(words, pick) {
    const labels = new Map(words.categories.map(({ name, label }) => [name, label]));
    const labelOf = (category) => labels.get(category) || visible(desk.words(category));
    let marked = 0;
    let offered = words.categories;

    function choice({ key, category, from, score }) {
      const fill = make("span", { class: "fill" });
      fill.style.width = `${Math.round(100 * (score || 0))}%`;
      const button = make("button", { type: "button", class: key === "Enter" ? "choice best" : "choice" },
        make("kbd", {}, key),
        make("span", { class: "what" }, labelOf(category), from ? make("span", { class: "from" }, from) : null),
        score === null ? null : make("span", { class: "share" }, desk.percent(score, 0)),
        score === null ? null : make("span", { class: "track", "aria-hidden": "true" }, fill));
      button.addEventListener("click", () => pick(category));
      return button;
    }

    function showPicture(item) {
      const { photo, image } = item;
      image.alt = photo.refund_id === null ? "The photo to decide" : `The photo to decide, of refund ${visible(photo.refund_id)}`;
      const place = at("picture");
      place.replaceChildren(image);
      const broken = () => {
        if (place.contains(image)) place.replaceChildren(make("p", { class: "quiet" }, "The picture cannot be shown. Skip it, or open its own page below."));
      };
      if (image.complete && !image.naturalWidth) broken();
      image.addEventListener("error", broken, { once: true });
    }

    function showOthers(item) {
      const { others } = item.refund;
      const place = at("others");
      place.hidden = !others.length;
      place.replaceChildren(
        make("h3", {}, "Also of this refund"),
        make("ul", {}, ...others.map((other) => {
          const told = [other.category ? labelOf(other.category) : null, other.state ? words.states[other.state] : null].filter(Boolean).join(", ");
          return make("li", {},
            other.picture ? make("img", { src: desk.root + other.picture, alt: other.filename, loading: "lazy" }) : make("span", { class: "none" }, "no picture"),
            make("span", { class: "quiet" }, told || other.filename));
        })));
    }

    function show(item) {
      const { photo, refund } = item;
      at("which").textContent = photo.refund_id === null ? "A photo without a refund" : `Refund ${visible(photo.refund_id)}${item.of > 1 ? `, photo ${item.number} of ${item.of}` : ""}`;
      const page = make("a", { href: `${desk.root}/history/${photo.photo_date}/${photo.photo_id}` }, "its own page");
      at("name").replaceChildren(`${photo.filename}, night of ${photo.run_date}`, ...(words.queue === "audit" ? [] : [" · ", page]));
      showPicture(item);
      showOthers({ photo, refund });
      const reasons = photo.review_reasons || [];
      at("why").replaceChildren(...(photo.predicted_category === null
        ? ["Drawn at random to check the machine. Its answer is not shown, so that it does not lead."]
        : [...reasons.map((reason) => make("span", { class: "badge review" }, words.reasons[reason] || desk.words(reason))),
          make("span", { class: "quiet sees" }, `The machine sees “${photo.class_name}” (${desk.percent(photo.confidence, 0)}).`)]));
      at("proposals").replaceChildren(
        ...proposals(photo, words).map(choice),
        choice({ key: "N", category: words.not_a_product, from: "an animal, scenery, a person", score: null }));
      at("note").value = "";
      find("");
    }

    // The list of all categories: a combobox whose list is always open, with a letter for each.
    function find(text) {
      const wanted = text.trim().toLowerCase();
      at("find").value = text;
      offered = words.categories.filter(({ name, label }) => `${label} ${name}`.toLowerCase().includes(wanted));
      marked = 0;
      at("categories").replaceChildren(...offered.map(({ name, label, letter }) => {
        const option = make("li", { role: "option", id: `category-${name}`, "aria-selected": "false" }, make("kbd", { "aria-hidden": "true" }, letter), make("span", {}, label));
        option.addEventListener("click", () => pick(name));
        return option;
      }), ...(offered.length ? [] : [make("li", { role: "option", "aria-disabled": "true", "aria-selected": "false", class: "none" }, "No category has that in its name.")]));
      mark(0);
    }

    function mark(number) {
      if (offered.length) marked = (number + offered.length) % offered.length;
      const active = document.activeElement === at("find") && offered.length ? offered[marked].name : null;
      for (const option of at("categories").children) option.setAttribute("aria-selected", String(option.id === `category-${active}`));
      if (active) {
        at("find").setAttribute("aria-activedescendant", `category-${active}`);
        at(`category-${active}`).scrollIntoView({ block: "nearest" });
      } else at("find").removeAttribute("aria-activedescendant");
    }

    return {
      show, find, labelOf,
      mark: (by) => mark(marked + by),
      get marked() { return offered.length ? offered[marked].name : null; },
    };
  }

  return { create, proposals };
})();
